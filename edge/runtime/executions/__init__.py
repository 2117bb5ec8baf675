"""All executions of a box: accepted, carried on, begun by others of them, resumed, ended."""
