package replay

import "sallyport/recorder/item"

// Tell says an item in one harmless line, as Timeline does; empty where there is nothing to say.
func Tell(it item.Item) string { return Options{}.tell(it) }

// Parameter is a bound value as SQL would have it, harmless, and cut where it is too long to be looked at.
func Parameter(p item.Param) string { return parameter(p) }
