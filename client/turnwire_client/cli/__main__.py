"""`python -m turnwire_client.cli`, for where the script `turnwire` is not on the path."""

from turnwire_client.cli import main

main()
