"""Shows how a class is made: Keras gives all of its classes the signature `(*args, **kwargs)`."""

from sphinx.util.inspect import signature, stringify_signature


def show_arguments(app, what, name, cls, options, shown, returns):
    """Takes the arguments of a class from its `__init__`, if the class has one of its own."""
    if what != "class" or shown != "(*args, **kwargs)":
        return None
    if "__init__" not in vars(cls):
        return "", None
    arguments = signature(cls.__init__, bound_method=True)
    return stringify_signature(arguments, show_annotation=False), None


def setup(app):
    """Registers the extension with Sphinx."""
    app.connect("autodoc-process-signature", show_arguments)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
