"""Contract suites and small real stand-ins for people who extend proa."""
