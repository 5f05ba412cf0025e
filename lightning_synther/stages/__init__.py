"""The chain of stages behind ``fit``: encoder, diffusion, synthesis, agent.

Read from `run` downwards: a parsed config is a run, whose `assembly` makes a `chain` of it, `real` transitions and then
`synthetic` ones, and an `agent` that trains on both; `evaluation` scores it, `results` says what came out. Every stage
is a `trainer` call, or a pass over data, which the run directory has a `record` of.
"""
