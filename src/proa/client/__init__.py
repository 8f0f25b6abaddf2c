"""The SDK: talk to an engine, synchronously or asynchronously, with types."""
