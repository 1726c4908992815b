//! As much of XML as an OVF descriptor needs: elements, attributes, text. No DTD, so no entities of one's own, and nothing that is fetched.

/// Deepest nesting of elements.
const DEEPEST: usize = 64;

/// Most elements of a document; real descriptors have some hundreds.
const MOST: usize = 20_000;

/// An element with its content. Names are without their prefixes: who writes OVF agrees on the namespaces, not on the prefixes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: String,
    attributes: Vec<(String, String)>,
    pub(crate) children: Vec<Element>,
    /// All text directly in it.
    text: String,
}

impl Element {
    /// Value of an attribute.
    pub(crate) fn attribute(&self, name: &str) -> Option<&str> {
        let found = self.attributes.iter().find(|(found, _)| found == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The first child of that name.
    pub(crate) fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// All children of that name.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// Text of the first child of that name, without space around it.
    pub(crate) fn text_of(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.text.trim())
    }
}

/// Reads a document; the error says where it stops being one.
pub(crate) fn parse(text: &str) -> Result<Element, String> {
    let mut reader = Reader {
        text,
        rest: text.strip_prefix('\u{feff}').unwrap_or(text),
        elements: 0,
    };
    reader.skip_outside()?;
    let root = reader.element(0)?;
    reader.skip_outside()?;
    if reader.rest.is_empty() {
        Ok(root)
    } else {
        Err(reader.wrong("there is something behind the last element"))
    }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    elements: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, problem: &str) -> String {
        let done = &self.text[..self.text.len() - self.rest.len()];
        let line = 1 + done.bytes().filter(|byte| *byte == b'\n').count();
        format!("line {line}: {problem}")
    }

    fn take(&mut self, prefix: &str) -> bool {
        match self.rest.strip_prefix(prefix) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// What is before `end`, which is taken as well.
    fn until(&mut self, end: &str, problem: &str) -> Result<&'a str, String> {
        match self.rest.split_once(end) {
            Some((before, rest)) => {
                self.rest = rest;
                Ok(before)
            }
            None => Err(self.wrong(problem)),
        }
    }

    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    /// Space, comments and instructions around the root.
    fn skip_outside(&mut self) -> Result<(), String> {
        loop {
            self.skip_space();
            if self.take("<!--") {
                self.until("-->", "a comment does not end")?;
            } else if self.take("<?") {
                self.until("?>", "an instruction does not end")?;
            } else if self.rest.starts_with("<!") {
                return Err(self.wrong("document types are not taken"));
            } else {
                return Ok(());
            }
        }
    }

    fn name(&mut self) -> Result<String, String> {
        let is_part = |c: char| c.is_alphanumeric() || matches!(c, ':' | '_' | '-' | '.');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if name.is_empty() {
            return Err(self.wrong("a name is missing"));
        }
        self.rest = rest;
        Ok(name.rsplit(':').next().unwrap_or(name).to_owned())
    }

    fn element(&mut self, depth: usize) -> Result<Element, String> {
        self.elements += 1;
        if depth > DEEPEST || self.elements > MOST {
            return Err(self.wrong("there are too many elements, or they are too deep"));
        }
        if !self.take("<") {
            return Err(self.wrong("an element is missing"));
        }
        let mut element = Element {
            name: self.name()?,
            ..Element::default()
        };
        loop {
            self.skip_space();
            if self.take("/>") {
                return Ok(element);
            }
            if self.take(">") {
                break;
            }
            let name = self.name()?;
            self.skip_space();
            if !self.take("=") {
                return Err(self.wrong("an attribute has no value"));
            }
            self.skip_space();
            let quote = if self.take("\"") {
                "\""
            } else if self.take("'") {
                "'"
            } else {
                return Err(self.wrong("the value of an attribute is not quoted"));
            };
            let value = self.until(quote, "the value of an attribute does not end")?;
            let value = self.unescape(value)?;
            element.attributes.push((name, value));
        }
        self.content(&mut element, depth)?;
        Ok(element)
    }

    fn content(&mut self, element: &mut Element, depth: usize) -> Result<(), String> {
        loop {
            let at = self.rest.find('<');
            let at = at.ok_or_else(|| self.wrong("an element does not end"))?;
            let (text, rest) = self.rest.split_at(at);
            element.text.push_str(&self.unescape(text)?);
            self.rest = rest;
            if self.take("</") {
                let name = self.name()?;
                self.skip_space();
                if name != element.name || !self.take(">") {
                    return Err(self.wrong("an element ends that did not begin"));
                }
                return Ok(());
            }
            if self.take("<!--") {
                self.until("-->", "a comment does not end")?;
            } else if self.take("<![CDATA[") {
                let text = self.until("]]>", "a piece of text does not end")?;
                element.text.push_str(text);
            } else if self.take("<?") {
                self.until("?>", "an instruction does not end")?;
            } else {
                let child = self.element(depth + 1)?;
                element.children.push(child);
            }
        }
    }

    fn unescape(&self, text: &str) -> Result<String, String> {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('&') {
            result.push_str(before);
            let (entity, after) = after
                .split_once(';')
                .ok_or_else(|| self.wrong("an ampersand stands alone"))?;
            let character = match entity {
                "amp" => Some('&'),
                "lt" => Some('<'),
                "gt" => Some('>'),
                "quot" => Some('"'),
                "apos" => Some('\''),
                other => numeric(other),
            };
            let unknown = || self.wrong("an entity is not known");
            result.push(character.ok_or_else(unknown)?);
            rest = after;
        }
        result.push_str(rest);
        Ok(result)
    }
}

/// `#65` or `#x41`.
fn numeric(entity: &str) -> Option<char> {
    let number = entity.strip_prefix('#')?;
    let code = match number.strip_prefix('x') {
        Some(digits) => u32::from_str_radix(digits, 16).ok()?,
        None => number.parse().ok()?,
    };
    char::from_u32(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_elements_attributes_and_text() {
        let text = "<?xml version=\"1.0\"?>\n<!-- c --><a:b x='1' p:y=\"2 &amp; &#x41;\"><c/>one<d>t &lt;</d>\
            <![CDATA[ <two>]]><c z=\"3\"></c></a:b>\n";
        let root = parse(text).unwrap();
        assert_eq!(root.name, "b");
        assert_eq!(root.attribute("y"), Some("2 & A"));
        assert_eq!(root.text, "one <two>");
        assert_eq!(root.text_of("d"), Some("t <"));
        assert_eq!(root.all("c").count(), 2);
        assert_eq!(root.all("c").nth(1).unwrap().attribute("z"), Some("3"));
        assert_eq!(root.child("e"), None);
    }

    #[test]
    fn says_where_it_is_wrong() {
        for (text, part) in [
            ("", "line 1: an element is missing"),
            ("<a>\n<b></a>", "line 2: an element ends"),
            ("<a", "a name is missing"),
            ("<a b>", "no value"),
            ("<a b=c>", "not quoted"),
            ("<a>&b;</a>", "not known"),
            ("<a/><b/>", "behind the last"),
            ("<!DOCTYPE a [<!ENTITY b \"c\">]><a/>", "document types"),
            ("<a><!-- </a>", "comment"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let deep = "<a>".repeat(100_000);
        assert!(parse(&deep).unwrap_err().contains("too deep"));
    }

    proptest! {
        #[test]
        fn noise_never_panics(text in "[<>a/='\"&;!\\[\\]?\\- \u{e9}#x0-9]{0,60}") {
            let _ = parse(&text);
        }
    }
}
