//! Which nodes does a server have? Walks its address space from the Objects folder, as many nodes in one request as the
//! server allows, and reads what each variable is.

use std::collections::HashSet;

use opcua::{
    client::Session,
    types::{
        AttributeId, BrowseDescription, BrowseDirection, BrowseResultMask, NodeClass, NodeClassMask, NodeId,
        ObjectId, ReadValueId, ReferenceDescription, ReferenceTypeId, TimestampsToReturn, Variant,
    },
};

use super::{
    client::{self, Namespaces, in_time},
    limits::{self, Declared},
};
use crate::source::error::SourceError;

/// Most nodes browsed, or attributes read, in one request.
const AT_ONCE_MAX: usize = 100;

/// A node that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Display names from the Objects folder, each after a slash.
    pub path: String,
    /// The identifier as it is written in a configuration.
    pub node: String,
    /// Its namespace.
    pub namespace_uri: String,
    /// Whether it has a value.
    pub is_variable: bool,
    /// Whether that value is one number or truth value.
    pub is_number: bool,
    /// The name of its type, as far as it is one of the standard's own; else its node id.
    pub data_type: String,
    /// For people.
    pub description: String,
}

/// Lists what is below the Objects folder, the Server object left out; at most `max` nodes, and whether that is all.
///
/// # Errors
/// When the session ends or the server refuses to be browsed at all.
pub async fn survey(session: &Session, max: usize) -> Result<(Vec<Found>, bool), SourceError> {
    let namespaces = client::namespaces(session).await?;
    let declared = limits::declared(session).await;
    let mut nodes: Vec<(NodeId, Found)> = Vec::new();
    let mut seen = HashSet::new();
    let mut level = vec![(String::new(), NodeId::from(ObjectId::ObjectsFolder))];
    let mut is_complete = true;
    while !level.is_empty() {
        let mut below = Vec::new();
        for chunk in level.chunks(at_once(declared.nodes_per_browse)) {
            for (place, child) in children(session, chunk).await? {
                let id = child.node_id.node_id.clone();
                if id == ObjectId::Server || !seen.insert(id.clone()) {
                    continue;
                }
                if nodes.len() == max {
                    is_complete = false;
                    continue;
                }
                let path = format!("{}/{}", chunk[place].0, child.display_name.text);
                below.push((path.clone(), id.clone()));
                nodes.push((id.clone(), found(path, &id, &child, &namespaces)));
            }
        }
        level = below;
    }
    describe(session, &mut nodes, declared).await?;
    let mut found: Vec<Found> = nodes.into_iter().map(|(_, found)| found).collect();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok((found, is_complete))
}

fn at_once(declared: u32) -> usize {
    match declared {
        0 => AT_ONCE_MAX,
        limit => AT_ONCE_MAX.min(limit as usize),
    }
}

fn found(path: String, id: &NodeId, child: &ReferenceDescription, namespaces: &Namespaces) -> Found {
    Found {
        path,
        node: identifier(id),
        namespace_uri: namespaces.uri(id.namespace).unwrap_or_default().to_owned(),
        is_variable: child.node_class == NodeClass::Variable,
        is_number: false,
        data_type: String::new(),
        description: String::new(),
    }
}

/// The children of several nodes, each with the place of its parent.
async fn children(
    session: &Session,
    parents: &[(String, NodeId)],
) -> Result<Vec<(usize, ReferenceDescription)>, SourceError> {
    let descriptions: Vec<BrowseDescription> = parents
        .iter()
        .map(|(_, node)| BrowseDescription {
            node_id: node.clone(),
            browse_direction: BrowseDirection::Forward,
            reference_type_id: ReferenceTypeId::HierarchicalReferences.into(),
            include_subtypes: true,
            node_class_mask: (NodeClassMask::OBJECT | NodeClassMask::VARIABLE).bits(),
            result_mask: BrowseResultMask::All as u32,
        })
        .collect();
    let results = in_time("Browse", session.browse(&descriptions, 0, None)).await?;
    let mut out = Vec::new();
    for (place, result) in results.into_iter().enumerate() {
        if result.status_code.is_bad() {
            tracing::warn!(path = %parents[place].0, status = %result.status_code, "cannot be browsed");
        }
        let mut result = result;
        loop {
            out.extend(
                result
                    .references
                    .take()
                    .into_iter()
                    .flatten()
                    .map(|child| (place, child)),
            );
            if result.continuation_point.is_null() {
                break;
            }
            let point = [result.continuation_point.clone()];
            let next = in_time("BrowseNext", session.browse_next(false, &point)).await?;
            match next.into_iter().next() {
                Some(next) => result = next,
                None => break,
            }
        }
    }
    Ok(out)
}

/// Reads type and description of the variables.
async fn describe(
    session: &Session,
    nodes: &mut [(NodeId, Found)],
    declared: Declared,
) -> Result<(), SourceError> {
    let mut variables: Vec<&mut (NodeId, Found)> =
        nodes.iter_mut().filter(|(_, found)| found.is_variable).collect();
    // Three attributes a node.
    let at_once = (at_once(declared.nodes_per_read) / 3).max(1);
    for chunk in variables.chunks_mut(at_once) {
        let requests: Vec<ReadValueId> = chunk
            .iter()
            .flat_map(|(id, _)| {
                [
                    AttributeId::DataType,
                    AttributeId::ValueRank,
                    AttributeId::Description,
                ]
                .map(|attribute| ReadValueId::new(id.clone(), attribute))
            })
            .collect();
        let values = in_time("Read", session.read(&requests, TimestampsToReturn::Neither, 0.0)).await?;
        for (variable, answers) in chunk.iter_mut().zip(values.chunks(3)) {
            let found = &mut variable.1;
            for answer in answers {
                match &answer.value {
                    Some(Variant::NodeId(data_type)) => {
                        (found.data_type, found.is_number) = type_name(data_type);
                    }
                    Some(Variant::Int32(rank)) if *rank >= 0 => {
                        found.is_number = false;
                        found.data_type.push_str("[]");
                    }
                    Some(Variant::LocalizedText(text)) => {
                        let text = text.text.as_ref();
                        found.description = text.split_whitespace().collect::<Vec<_>>().join(" ");
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// A type's name and whether it is a number or truth value (Part 3 §8, Part 6 §5.1.2).
fn type_name(data_type: &NodeId) -> (String, bool) {
    const NAMES: [&str; 13] = [
        "", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float",
        "Double", "String",
    ];
    let text = data_type.to_string();
    let known = text
        .strip_prefix("i=")
        .and_then(|number| number.parse::<usize>().ok())
        .filter(|number| data_type.namespace == 0 && *number > 0);
    match known {
        Some(number) if number < NAMES.len() => (NAMES[number].to_owned(), number <= 11),
        Some(26) => ("Number".to_owned(), true),
        Some(27) => ("Integer".to_owned(), true),
        Some(28) => ("UInteger".to_owned(), true),
        Some(290) => ("Duration".to_owned(), true),
        _ => (text, false),
    }
}

/// As it is written in a configuration.
fn identifier(id: &NodeId) -> String {
    let text = id.to_string();
    text.split_once(';')
        .filter(|(namespace, _)| namespace.starts_with("ns="))
        .map_or(text.clone(), |(_, identifier)| identifier.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_stands_without_its_namespace_and_whole() {
        assert_eq!(identifier(&NodeId::new(2, "L3.TT;x")), "s=L3.TT;x");
        assert_eq!(identifier(&NodeId::new(0, "a;b")), "s=a;b");
        assert_eq!(identifier(&NodeId::new(7, 42u32)), "i=42");
    }

    #[test]
    fn numbers_and_truth_values_can_be_tags() {
        assert_eq!(type_name(&NodeId::new(0, 11u32)), ("Double".to_owned(), true));
        assert_eq!(type_name(&NodeId::new(0, 12u32)), ("String".to_owned(), false));
        assert!(!type_name(&NodeId::new(3, 11u32)).1);
    }
}
