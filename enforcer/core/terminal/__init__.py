"""A program's input and output as they pass, for every protocol that starts programs.

    plain      both ways, booked and masked
    echo       which typed bytes were meant to be seen
    alarm      one timer for all that waits
"""
