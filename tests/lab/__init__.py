"""The lab: hosts in network namespaces with real servers, as the lab tests and the demo use them.

    with Lab() as lab:                # one a machine; a second one waits
        with lab.weir(targets=...) as weir:
            weir.crew(["psql", "-h", "db.lab.example", ...])

`hosts` makes and removes the hosts, `postgresql`, `dns` and `model` are their servers, `weir` the product under test,
`oracle` compares the recording with the server's own log.
"""
