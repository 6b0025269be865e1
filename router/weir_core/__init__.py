"""What Weir knows and decides, without I/O, clock, chance or logging.

Read in this order: resources, snapshot, evidence, errors (the nouns); routing, cascade,
sequential, rollout (the verbs); compile, status (the translators).
"""
