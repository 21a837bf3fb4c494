"""``python -m eosfm_edge`` is ``eosfm-edge``."""

from eosfm_edge.cli.main import main

if __name__ == "__main__":
    main()
