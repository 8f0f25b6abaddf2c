"""`python -I -m proa.api`."""

from proa.api import main

main()
