//! The patterns in `modules.alias`: `fnmatch` as kmod uses it, with `*`, `?` and `[…]`.

/// Whether `text` matches all of `pattern`. Takes time in proportion to the product of their lengths at worst.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on when a literal after the last star does not fit: behind the star, one letter of text further.
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        let step = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some(b'?') => Some(p + 1),
            Some(b'[') => match class(&pattern[p..], text[t]) {
                Some((true, len)) => Some(p + len),
                Some((false, _)) => None,
                // An unfinished bracket is a letter like others.
                None => (text[t] == b'[').then_some(p + 1),
            },
            Some(letter) => (*letter == text[t]).then_some(p + 1),
            None => None,
        };
        match (step, retry) {
            (Some(next), _) => {
                p = next;
                t += 1;
            }
            (None, Some((after_star, from))) => {
                p = after_star;
                t = from + 1;
                retry = Some((after_star, from + 1));
            }
            (None, None) => return false,
        }
    }
    pattern[p..].iter().all(|b| *b == b'*')
}

/// Whether `letter` is in the bracket expression `pattern` starts with, and how long that is. `None` without an end.
fn class(pattern: &[u8], letter: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    // A closing bracket in the first place is a member.
    let end = start + 1 + pattern.get(start + 1..)?.iter().position(|b| *b == b']')?;
    let mut members = &pattern[start..end];
    let mut found = false;
    while let Some((first, rest)) = members.split_first() {
        members = rest;
        match rest {
            [b'-', last, after @ ..] => {
                found |= (*first..=*last).contains(&letter);
                members = after;
            }
            _ => found |= *first == letter,
        }
    }
    Some((found != negated, end + 1))
}

/// The part of a pattern before its first special letter.
pub(super) fn literal_prefix(pattern: &str) -> &str {
    let end = pattern.find(['*', '?', '[']).unwrap_or(pattern.len());
    &pattern[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn like_fnmatch() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("*", "", true),
            ("a", "", false),
            ("", "a", false),
            ("a*c", "abbc", true),
            ("a*c", "abcb", false),
            ("a*b*c", "axbxbxc", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a[bc]d", "acd", true),
            ("a[b-d]e", "ade", true),
            ("a[!b]c", "abc", false),
            ("a[!b]c", "axc", true),
            ("a[]]b", "a]b", true),
            ("a[b", "a[b", true),
            ("a[b", "ab", false),
            (
                "pci:v00001AF4d00001000sv*sd*bc*sc*i*",
                "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00",
                true,
            ),
            (
                "pci:v*d*sv*sd*bc01sc06i01*",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01",
                true,
            ),
            (
                "pci:v*d*sv*sd*bc01sc06i01*",
                "pci:v00008086d00002922sv00001AF4sd00001100bc01sc08i02",
                false,
            ),
            (
                "cpu:type:x86,ven*fam*mod*:feature:*00C2*",
                "cpu:type:x86,ven0002fam0017mod0031:feature:,0000,00C2,0100",
                true,
            ),
            (
                "usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*",
                "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00",
                true,
            ),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_end_soon() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }

    #[test]
    fn prefixes() {
        assert_eq!(literal_prefix("pci:v00001AF4d*"), "pci:v00001AF4d");
        assert_eq!(literal_prefix("fs-xfs"), "fs-xfs");
    }
}
