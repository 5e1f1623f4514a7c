"""The service: a run answering over HTTP (docs/service.md)."""
