"""Protocol adapters. `contract` is what each implements; `registry` finds them."""
