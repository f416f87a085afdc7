"""`python -m gateway.looking`: see `gateway.looking.child`."""

from gateway.looking.child import main

main()
