package interpret

import (
	"encoding/binary"
	"encoding/hex"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/recorder/item"
)

// maxParams is what a Bind can carry: its count has 16 bits.
const maxParams = 1 << 16

// params reads the format codes and values of a Bind or FunctionCall: one format for all, none (text), or one each.
func params(r *cursor, oids []uint32) []item.Param {
	var formats []uint16
	for n := min(int(r.uint16()), len(r.b)/2); n > 0; n-- {
		formats = append(formats, r.uint16())
	}
	count := min(int(r.uint16()), maxParams, len(r.b)/4)
	if count == 0 {
		return nil
	}
	list := make([]item.Param, 0, count)
	for n := range count {
		size := int32(r.uint32())
		if size < 0 {
			list = append(list, item.Param{Null: true})
			continue
		}
		value := r.take(min(int(size), len(r.b)))
		var format uint16
		switch {
		case len(formats) == 1:
			format = formats[0]
		case n < len(formats):
			format = formats[n]
		}
		var oid uint32
		if n < len(oids) {
			oid = oids[n]
		}
		list = append(list, param(value, format, oid))
	}
	return list
}

// param makes a value readable where that is certain, and keeps the bytes where it is not.
func param(value []byte, format uint16, oid uint32) item.Param {
	text, ok := string(value), format == 0
	if !ok {
		text, ok = decode(value, oid)
	}
	if ok && utf8.ValidString(text) {
		return item.Param{Text: text}
	}
	return item.Param{Binary: append([]byte{}, value...)}
}

// The OIDs of types whose binary form is decoded (pg_type.dat).
const (
	oidBool        = 16
	oidChar        = 18
	oidName        = 19
	oidInt8        = 20
	oidInt2        = 21
	oidInt4        = 23
	oidText        = 25
	oidOid         = 26
	oidJSON        = 114
	oidXML         = 142
	oidFloat4      = 700
	oidFloat8      = 701
	oidBPChar      = 1042
	oidVarchar     = 1043
	oidDate        = 1082
	oidTime        = 1083
	oidTimestamp   = 1114
	oidTimestamptz = 1184
	oidNumeric     = 1700
	oidUUID        = 2950
	oidJSONB       = 3802
)

// postgresEpoch is what dates and times are counted from.
var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// decode turns a value's binary form into the text one.
func decode(b []byte, oid uint32) (string, bool) {
	switch oid {
	case oidText, oidVarchar, oidBPChar, oidName, oidJSON, oidXML, oidChar:
		return string(b), true
	case oidJSONB:
		if len(b) > 0 && b[0] == 1 {
			return string(b[1:]), true
		}
	case oidBool:
		if len(b) == 1 {
			return strconv.FormatBool(b[0] != 0), true
		}
	case oidInt2:
		if len(b) == 2 {
			return strconv.Itoa(int(int16(binary.BigEndian.Uint16(b)))), true
		}
	case oidInt4:
		if len(b) == 4 {
			return strconv.Itoa(int(int32(binary.BigEndian.Uint32(b)))), true
		}
	case oidOid:
		if len(b) == 4 {
			return strconv.FormatUint(uint64(binary.BigEndian.Uint32(b)), 10), true
		}
	case oidInt8:
		if len(b) == 8 {
			return strconv.FormatInt(int64(binary.BigEndian.Uint64(b)), 10), true
		}
	case oidFloat4:
		if len(b) == 4 {
			return strconv.FormatFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(b))), 'g', -1, 32), true
		}
	case oidFloat8:
		if len(b) == 8 {
			return strconv.FormatFloat(math.Float64frombits(binary.BigEndian.Uint64(b)), 'g', -1, 64), true
		}
	case oidUUID:
		if len(b) == 16 {
			h := hex.EncodeToString(b)
			return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:], true
		}
	case oidDate, oidTime, oidTimestamp, oidTimestamptz:
		return decodeTime(b, oid)
	case oidNumeric:
		return decodeNumeric(b)
	}
	return "", false
}

func decodeTime(b []byte, oid uint32) (string, bool) {
	if oid == oidDate {
		if len(b) != 4 {
			return "", false
		}
		days := int32(binary.BigEndian.Uint32(b))
		if days == math.MaxInt32 || days == math.MinInt32 {
			return infinite(days > 0), true
		}
		when := postgresEpoch.AddDate(0, 0, int(days))
		return when.Format("2006-01-02"), when.Year() > 0 // years BC are left as bytes
	}
	if len(b) != 8 {
		return "", false
	}
	micros := int64(binary.BigEndian.Uint64(b))
	if oid == oidTime {
		if micros < 0 || micros > 24*3600*1e6 {
			return "", false
		}
		return postgresEpoch.Add(time.Duration(micros) * time.Microsecond).Format("15:04:05.999999"), true
	}
	if micros == math.MaxInt64 || micros == math.MinInt64 {
		return infinite(micros > 0), true
	}
	// In two steps, as a Duration holds only 292 years.
	when := time.Unix(postgresEpoch.Unix()+micros/1e6, micros%1e6*1e3).UTC()
	if oid == oidTimestamptz {
		return when.Format("2006-01-02 15:04:05.999999+00"), when.Year() > 0
	}
	return when.Format("2006-01-02 15:04:05.999999"), when.Year() > 0
}

func infinite(positive bool) string {
	if positive {
		return "infinity"
	}
	return "-infinity"
}

// decodeNumeric reads digits in base 10,000: number of digits, weight of the first, sign, scale, digits.
func decodeNumeric(b []byte) (string, bool) {
	if len(b) < 8 {
		return "", false
	}
	count := int(binary.BigEndian.Uint16(b))
	weight := int(int16(binary.BigEndian.Uint16(b[2:])))
	sign := binary.BigEndian.Uint16(b[4:])
	scale := int(binary.BigEndian.Uint16(b[6:]))
	if len(b) != 8+2*count || scale > 1<<14 {
		return "", false
	}
	switch sign {
	case 0xC000:
		return "NaN", true
	case 0xD000:
		return "infinity", true
	case 0xF000:
		return "-infinity", true
	}
	digit := func(n int) string {
		if n < 0 || n >= count {
			return "0000"
		}
		return strconv.Itoa(10_000 + int(binary.BigEndian.Uint16(b[8+2*n:]))%10_000)[1:]
	}
	var whole, fraction strings.Builder
	for n := 0; n <= weight; n++ {
		whole.WriteString(digit(n))
	}
	for n := weight + 1; fraction.Len() < scale; n++ {
		fraction.WriteString(digit(n))
	}
	text := strings.TrimLeft(whole.String(), "0")
	if text == "" {
		text = "0"
	}
	if sign == 0x4000 {
		text = "-" + text
	}
	if scale > 0 {
		text += "." + fraction.String()[:scale]
	}
	return text, true
}

// valid makes text of bytes that may be none.
func valid(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
