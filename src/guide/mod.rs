// The pages name items of the crate.
#[cfg(doc)]
use crate::*;

/// A page of the guide. On a forge a link leads to a file, here it has to lead to a module: of two definitions of a
/// link the first one holds, so `links.txt` comes before those at the end of each page.
macro_rules! page {
    ($name:ident) => {
        #[doc = include_str!("../../docs/guide/links.txt")]
        #[doc = include_str!(concat!("../../docs/guide/", stringify!($name), ".md"))]
        pub mod $name {}
    };
}

page!(alternatives);
page!(asynchronous);
page!(backup);
page!(durability);
page!(expiry);
page!(memory);
page!(migrating);
page!(processes);
page!(questions);
page!(quick_start);
page!(recovery);
page!(snapshots);
page!(trust);
page!(tuning);
page!(typed_maps);
