"""Carry connections to published ports into containers where the kernel cannot, independent of the engine."""
