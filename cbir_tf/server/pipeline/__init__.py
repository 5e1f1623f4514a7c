"""The threads behind the service."""
