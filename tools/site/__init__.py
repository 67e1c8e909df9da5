"""Builds the documentation: `pages` stages it, Zensical builds it, `llms` and `checks` follow.

```text
docs/*.md, CONTRIBUTING.md, ... ─ pages ─▶ build/pages ─ Zensical ─▶ site/ ─▶ checks
                                                └─────── llms ─────▶ site/llms.txt
```

`python -m tools.site` needs `pip install '.[docs]'`, and fails on any complaint.
"""
