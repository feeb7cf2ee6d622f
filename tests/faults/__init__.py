"""Real runs that are hurt, taken up again, and compared leaf by leaf with the run that nothing happened to.

python -m tests.faults --rounds 200 --jobs 2
"""
