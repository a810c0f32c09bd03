"""`weir init`: a first configuration.

    findings    what was found, as structs; secrets among it are never shown
    strings     pure: connection strings and variables of a crew's environment
    clients     pure: ~/.ssh/config, known_hosts and kubeconfigs of a crew's user
    files       reads what others name, as root
    home        reads these files, as that user, in a process of its own
    looks       pure: whether a command looks like a crew's
    finding     units and processes of this host that are crews
    talking     whom they talk to: connections, environments, client files
    recorded    what a recording says of that
    proposal    pure: findings and what a person chose -> what would be configured
    policies    pure: the policies of that
    rendering   pure: that -> weir.toml, groups.toml and what lies beside them
    writing     checks, shows and writes them
"""
