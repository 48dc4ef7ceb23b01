"""Echo servers to compare with, each as short as its library's own documentation has it."""
