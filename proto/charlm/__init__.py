"""The wire contract of charlm; its versions are the packages below."""
