//! What there is to read of the XML of S3 services: elements without attributes that matter, and text in them.

/// What is between the tags of the first element of that name.
pub(crate) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    elements(xml, name).next()
}

/// The same of all elements of that name. Names are those without a prefix, which S3 services do not use.
pub(crate) fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        loop {
            let (_, after) = rest.split_once(&open)?;
            // The tag may have attributes, such as its namespace; or be of a name that only begins so.
            let (tag, content) = after.split_once('>')?;
            rest = content;
            if tag.ends_with('/') {
                continue;
            }
            if !tag.is_empty() && !tag.starts_with(char::is_whitespace) {
                continue;
            }
            let (content, after) = content.split_once(&close)?;
            rest = after;
            return Some(content);
        }
    })
}

/// The text that is meant; what is no character stays as it is.
pub(crate) fn text(content: &str) -> String {
    let mut out = String::with_capacity(content.len());
    let mut rest = content;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        let found = after
            .split_once(';')
            .and_then(|(name, after)| Some((character(name)?, after)));
        match found {
            Some((character, after)) => {
                out.push(character);
                rest = after;
            }
            None => {
                out.push('&');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

fn character(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        _ => {
            let number = name.strip_prefix('#')?;
            let code = match number.strip_prefix('x') {
                Some(digits) => u32::from_str_radix(digits, 16),
                None => number.parse(),
            };
            char::from_u32(code.ok()?)?
        }
    })
}

/// Text as it is written into XML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_and_their_text_are_found() {
        let xml = r#"<?xml version="1.0"?><List xmlns="http://x/"><KeyCount>2</KeyCount><Key/><Key>a&amp;b</Key>
            <Contents><Key>&#x63;&#100;&nix;&</Key></Contents></List>"#;
        let keys: Vec<_> = elements(xml, "Key").map(text).collect();
        assert_eq!(keys, ["a&b", "cd&nix;&"]);
        assert_eq!(element(xml, "KeyCount"), Some("2"));
        assert!(element(xml, "List").unwrap().contains("Contents"));
        assert_eq!(element(xml, "Code"), None);
        assert_eq!(text(&escaped("\"<&>")), "\"<&>");
    }

    #[test]
    fn what_is_no_xml_has_no_elements() {
        for odd in [
            "",
            "<",
            "<Key",
            "<Key>",
            "</Key><Key>",
            "<Key></Ke>",
            "<Key/",
        ] {
            assert_eq!(element(odd, "Key"), None, "{odd}");
        }
    }
}
