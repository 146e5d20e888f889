"""Infrastructure that knows no model: registries, communication, events, logging, files, errors."""
