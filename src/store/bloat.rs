use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;

/// A transaction that is open for longer keeps the database from cleaning up.
const LONGEST_TRANSACTION: Duration = Duration::from_mins(5);
/// Of more dead rows than these, if they are more than the live ones, a table is not cleaned up as it should be: some hundred thousand come
/// about in a minute, which is how often the database looks.
const MOST_DEAD: u64 = 1_000_000;

/// What a database has not cleaned up, and what keeps it from that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bloat {
    /// For how long the oldest transaction is open, whosever it is; `None` if there is none.
    pub oldest_transaction: Option<Duration>,
    /// The tables that change all the time, or are large.
    pub tables: Vec<TableBloat>,
}

/// The rows of a table, as the database has counted them lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableBloat {
    /// Its name.
    pub name: String,
    /// Rows that are there.
    pub live: u64,
    /// Rows that were there, and still take room.
    pub dead: u64,
}

impl Bloat {
    /// What somebody should look at, a sentence each.
    pub fn alarms(&self) -> Vec<String> {
        let age = self.oldest_transaction.filter(|age| *age > LONGEST_TRANSACTION);
        let transaction = age.map(|age| {
            format!("a transaction has been open for {} s: nothing that was deleted since can be cleaned up", age.as_secs())
        });
        let tables = self.tables.iter().filter(|table| table.dead > MOST_DEAD && table.dead > table.live);
        let tables = tables.map(|TableBloat { name, live, dead }| {
            format!(
                "the table {name} has {dead} dead rows beside {live} live ones: autovacuum does not keep up, or is kept from it"
            )
        });
        transaction.into_iter().chain(tables).collect()
    }
}

/// How far a database is cleaned up.
#[async_trait]
pub trait BloatStore {
    /// What it says; `None` from one that has nothing to clean up, or does not say.
    async fn bloat(&self) -> Result<Option<Bloat>, StoreError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_beyond_its_bound_is_an_alarm() {
        let table = |name: &str, live, dead| TableBloat { name: name.into(), live, dead };
        let fine = Bloat {
            oldest_transaction: Some(LONGEST_TRANSACTION),
            tables: vec![table("work", 10, MOST_DEAD), table("results", 30_000_000, 20_000_000)],
        };
        assert_eq!(fine.alarms(), Vec::<String>::new());
        let bad = Bloat { oldest_transaction: Some(Duration::from_secs(3_600)), tables: vec![table("work", 10, MOST_DEAD + 1)] };
        let alarms = bad.alarms();
        assert!(alarms.len() == 2 && alarms[0].contains("3600 s") && alarms[1].contains("work"), "{alarms:?}");
    }
}
