"""
The protocol ``admin``: what a server knows of itself and of its connections, over HTTP, to be read.

For operators, their scripts and a page in a browser: GET and HEAD alone, so nothing can be changed
there.  What can be asked is in docs/insight.md.  It may know what `echod.protocols` may, and
`twisted.web`, which is loaded when a listener serves this protocol and not before: that takes 34 ms
of processor time.  What is told comes from the `echod.interfaces.ServerContext` of the listener, as
plain values.

`maker` is what the registry knows, and `factory` what a listener has.  `pages` has the paths,
`guards` says who is turned away, and `channel` is what of HTTP is done here.  `bodies`, `answering`
and `fair_turns` make a long answer a slice at a time; `events` is the stream of snapshots.
`metrics` is what Prometheus reads: `metric_families` has what there is, and `prometheus`, which
alone needs prometheus-client, writes it.
"""
