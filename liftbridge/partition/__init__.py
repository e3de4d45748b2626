"""One partition's life: appending, committing, acknowledging, reading. Knows logs and transports only as interfaces."""
