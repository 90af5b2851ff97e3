package enrich

import (
	"strings"

	"github.com/nyaruka/phonenumbers"
)

// maxNumber is the longest number as given that is looked at: 15 digits (ITU-T E.164, 6) with generous punctuation.
const maxNumber = 40

// E164 returns number as "+" and up to 15 digits (ITU-T E.164) when it is certainly a valid public number, else "".
// region is the ISO 3166 region in which a number without "+" is read; without one such a number has no E.164.
//
// Where national numbers are dialed with a trunk prefix (0 in most of Europe), a number without it is taken to be an
// extension, not a public number.
func E164(number, region string) string {
	if !publicShape(number) {
		return ""
	}
	international := strings.HasPrefix(strings.TrimSpace(number), "+")
	if region == "" && !international {
		return ""
	}
	p, err := phonenumbers.ParseAndKeepRawInput(number, region)
	if err != nil || !phonenumbers.IsValidNumber(p) || p.GetNationalNumber() == 0 { // the library gives +800 00000000 back as it is
		return ""
	}
	if p.GetCountryCodeSource() == phonenumbers.PhoneNumber_FROM_DEFAULT_COUNTRY && !nationallyDialed(number, region) {
		return ""
	}
	const maxE164 = 1 + 15 // ITU-T E.164, 6.1: the library lets longer ones of some countries pass
	if e := phonenumbers.Format(p, phonenumbers.E164); len(e) <= maxE164 {
		return e
	}
	return ""
}

// nationallyDialed reports whether number has the trunk prefix of its region, where the region has one. In the North
// American plan (country code 1) it is optional.
func nationallyDialed(number, region string) bool {
	if phonenumbers.GetCountryCodeForRegion(region) == 1 {
		return true
	}
	trunk := phonenumbers.GetNddPrefixForRegion(region, true)
	return strings.HasPrefix(plain(number), trunk)
}

// publicShape reports whether number is digits and the usual punctuation, with at most a leading plus, and of a
// length that a public number can have. It keeps names, SIP URIs and vanity letters from the parser, which would make
// something of them.
func publicShape(number string) bool {
	if len(number) > maxNumber {
		return false
	}
	digits := 0
	for i, r := range number {
		switch {
		case r >= '0' && r <= '9':
			digits++
		case r == '+' && digits == 0 && strings.Count(number[:i], "+") == 0:
		case strings.ContainsRune(" -.()/", r):
		default:
			return false
		}
	}
	return digits >= 5 && digits <= 20
}

// plain drops punctuation.
func plain(number string) string {
	if !strings.ContainsAny(number, " -.()/") {
		return number
	}
	return strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -.()/", r) {
			return -1
		}
		return r
	}, number)
}
