"""Subscriptions: messages in, batches out, each message in exactly one executed batch."""
