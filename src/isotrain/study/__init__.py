"""The study: what isolation does to training time and accuracy, by one protocol (docs/protocol.md) and one command."""
