"""`python -m charlm_client` is `charlm`."""

from charlm_client.cli.main import main

main()
