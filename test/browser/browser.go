// Package browser drives the console with a real browser against the demo, as the people of the story do. Its tests need
// Debian's chromium and what `sallyport demo` needs, and run by `make browser` or with `make conformance`.
package browser
