package slacktest

import (
	"encoding/json"
	"unicode/utf16"
)

// What Slack bounds, in UTF-16 units: docs.slack.dev, reference/block-kit/blocks, reference/views.

type text struct {
	Type string `json:"type"`
	Text string `json:"text"`
}

func (t *text) fits(most int) bool {
	if t == nil {
		return true
	}
	n := len(utf16.Encode([]rune(t.Text)))
	return n > 0 && n <= most
}

type block struct {
	Type   string          `json:"type"`
	Text   *text           `json:"text"`
	Label  *text           `json:"label"`
	Fields []*text         `json:"fields"`
	Raw    json.RawMessage `json:"elements"`
}

// fits reports whether Slack would take a message.
func fits(fallback, blocks string) bool {
	if len(utf16.Encode([]rune(fallback))) > 40_000 {
		return false
	}
	if blocks == "" {
		return fallback != ""
	}
	var all []block
	return json.Unmarshal([]byte(blocks), &all) == nil && blocksFit(all, 50)
}

func blocksFit(all []block, most int) bool {
	if len(all) == 0 || len(all) > most {
		return false
	}
	for _, b := range all {
		limit := 3000
		if b.Type == "header" {
			limit = 150
		}
		if !b.Text.fits(limit) || !b.Label.fits(2000) || len(b.Fields) > 10 || b.Type == "section" && b.Text == nil && len(b.Fields) == 0 {
			return false
		}
		for _, f := range b.Fields {
			if !f.fits(2000) {
				return false
			}
		}
		switch b.Type {
		case "context":
			var texts []*text
			if json.Unmarshal(b.Raw, &texts) != nil || len(texts) > 10 {
				return false
			}
			for _, t := range texts {
				if !t.fits(2000) {
					return false
				}
			}
		case "actions":
			var buttons []struct {
				Text     *text  `json:"text"`
				ActionID string `json:"action_id"`
				Value    string `json:"value"`
				URL      string `json:"url"`
			}
			if json.Unmarshal(b.Raw, &buttons) != nil || len(buttons) > 25 {
				return false
			}
			for _, e := range buttons {
				if !e.Text.fits(75) || len(e.Value) > 2000 || len(e.URL) > 3000 || len(e.ActionID) > 255 {
					return false
				}
			}
		}
	}
	return true
}

// viewFits reports whether Slack would open a form.
func viewFits(raw json.RawMessage) bool {
	var v struct {
		Title, Submit, Close *text
		CallbackID           string  `json:"callback_id"`
		PrivateMetadata      string  `json:"private_metadata"`
		Blocks               []block `json:"blocks"`
	}
	return json.Unmarshal(raw, &v) == nil && v.Title.fits(24) && v.Submit.fits(24) && v.Close.fits(24) &&
		len(v.CallbackID) <= 255 && len(v.PrivateMetadata) <= 3000 && blocksFit(v.Blocks, 100)
}
