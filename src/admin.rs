//! tmp
#[derive(Clone, Debug)] pub struct Health;
#[derive(Clone, Debug)] pub struct PoolHealth;
impl Health { pub fn new<'a>(_p: impl IntoIterator<Item=&'a str>) -> Self { Self } pub fn pool(&self, _n: &str) -> PoolHealth { PoolHealth } }
impl PoolHealth { pub fn polled_now(&self){} pub fn joined(&self){} pub fn partitions(&self,_n:usize){} pub fn waiting_for(&self,_w:Option<String>){} pub fn held(&self,_h:Vec<String>){} }
