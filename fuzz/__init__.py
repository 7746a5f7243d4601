"""Whatever is fed to nn-Meter, it answers with a value or an error of its tree, in bounded time and memory.

    python -m fuzz --seconds 3600

``__main__`` says how to run it and what it prints, ``models`` and ``files`` what is fed, ``sandbox`` what is a finding.
"""
