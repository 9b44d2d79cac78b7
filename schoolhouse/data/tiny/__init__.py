"""The tiny world: fictional people, sums and programs, generated from seeds, for a model of two million parameters.

Every generator is deterministic. The hash of what an item asks decides its split ([`split_of`]), so train and test are
disjoint by construction, also in the corpus of the base model. Steps of worked solutions are not held out: `547+85`
may be a step of one solution and a question of the test split.
"""
