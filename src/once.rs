//! tmp
pub struct ProcessedSet;
impl ProcessedSet { pub fn connect(_c:&crate::config::Redis,_n:&str,_m:crate::metrics::PoolMetrics)->Self{Self} pub async fn lookup(&self,_i:&[&str])->Option<Vec<bool>>{None} pub async fn mark(&self,_i:&[&str]){} }
