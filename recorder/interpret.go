package recorder

import (
	"sallyport/recorder/format"
	"sallyport/recorder/item"
)

// Event is one entry of a recording.
type Event = format.Event

// Interpreter turns the raw events of one recording into what they meant. Each protocol has one; it is pure, so that
// meaning can be worked out again from the recording at any time, by a newer interpreter too. It must stand any
// bytes: a recording holds what a hostile peer sent. It is used by one goroutine at a time.
type Interpreter interface {
	// Interpret is given each event of a recording in order and emits the items that are complete with it.
	Interpret(event Event, emit func(Item))
	// Finish emits what was still open when the recording ended.
	Finish(emit func(Item))
}

// Item is one thing that happened in a session.
type Item = item.Item

// ItemKind says what an Item is.
type ItemKind = item.Kind

// Param is one bound parameter.
type Param = item.Param

// The kinds of item.
const (
	ItemStart     = item.Start
	ItemStatement = item.Statement
	ItemResult    = item.Result
	ItemCommand   = item.Command
	ItemOutput    = item.Output
	ItemInput     = item.Input
	ItemResize    = item.Resize
	ItemExit      = item.Exit
	ItemFile      = item.File
	ItemOther     = item.Other
	ItemNote      = item.Note
	ItemBulk      = item.Bulk
	ItemEnd       = item.End
)

// What marks a command that was read from a terminal's screen.
const (
	ViaScreen = item.Screen
	Guessed   = item.Guessed
)
