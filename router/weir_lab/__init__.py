"""The laboratory: two small language models that were really trained, served as in production.

Nothing here routes or judges. It gives the demo something true to route between, and the
questions, with their right answers, to measure it by.
"""
