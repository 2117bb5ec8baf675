"""The unix socket: what gateways and the command line may say to the runtime."""
