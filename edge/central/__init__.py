"""The centre: what boxes sent, checked, kept for ever, and looked at again. See DESIGN.md."""
