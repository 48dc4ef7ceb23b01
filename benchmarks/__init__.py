"""
What echod costs, side by side with other echo servers: ``python -m benchmarks``.

``rows`` says what is measured and against whom, ``servers`` builds and starts the servers,
``load`` drives the load generator (C, in ``csrc``), ``measure`` reads the servers' CPU time and
memory from the kernel, ``run`` holds the order of it all, ``figures`` makes ratios and verdicts,
``report`` and ``chart`` write them down.  ``README.md`` here tells how to read the results.
"""
