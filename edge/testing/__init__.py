"""Shipped fakes, for our own tests and for whoever writes tools or playbooks: a clock that stands still until
moved, a worker pool without processes, a whole box without processes or sockets.

Used by tests only; nothing in product code may import this package. Fakes implement the Protocols of the real
parts and run the real code behind them wherever that is possible (the pool runs the real worker loop), so
that a test on a fake is a test of behaviour.
"""
