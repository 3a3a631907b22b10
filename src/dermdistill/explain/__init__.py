"""Where a network looked: heat maps and the pictures made of them."""
