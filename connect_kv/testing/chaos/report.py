def page(r): return "x"
