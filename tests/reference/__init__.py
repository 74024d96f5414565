"""Golden files of independent implementations, and what makes and reads them."""
