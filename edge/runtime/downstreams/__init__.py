"""What the box calls outside: circuit breakers of all downstreams, and messages by way of the gateway."""
