"""The gateway daemon: admits MQTT requests, passes payloads through unopened, never touches data."""
