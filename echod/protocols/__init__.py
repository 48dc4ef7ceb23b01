"""What is answered: one small module a protocol, each on `echod.connection.Connection`."""
