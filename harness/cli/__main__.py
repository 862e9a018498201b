"""`python -m harness.cli`: the same as `drill`, from a checkout that is not installed."""

import sys

from harness.cli.app import main

sys.exit(main())
